# Specs and sources of builds. Workers can only read them, so code in a job cannot change what is launched next.
resource "google_storage_bucket" "builds" {
  project                     = var.project
  name                        = local.bucket
  location                    = var.region
  labels                      = var.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = var.force_destroy

  versioning {
    enabled = true
  }

  dynamic "encryption" {
    for_each = var.kms_key[*]
    content {
      default_kms_key_name = encryption.value
    }
  }

  depends_on = [google_project_service.needed, google_kms_crypto_key_iam_member.agents]
}

# Staged and temporary files of jobs.
resource "google_storage_bucket" "jobs" {
  project                     = var.project
  name                        = "${local.bucket}-jobs"
  location                    = var.region
  labels                      = var.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = var.force_destroy

  dynamic "encryption" {
    for_each = var.kms_key[*]
    content {
      default_kms_key_name = encryption.value
    }
  }

  depends_on = [google_project_service.needed, google_kms_crypto_key_iam_member.agents]
}

resource "google_storage_bucket_iam_member" "builds" {
  for_each = {
    build  = { role = "roles/storage.objectUser", member = local.build }
    worker = { role = "roles/storage.objectViewer", member = local.worker }
  }

  bucket = google_storage_bucket.builds.name
  role   = each.value.role
  member = each.value.member
}

resource "google_storage_bucket_iam_member" "jobs" {
  bucket = google_storage_bucket.jobs.name
  role   = "roles/storage.objectUser"
  member = local.worker
}

resource "google_artifact_registry_repository" "images" {
  project       = var.project
  location      = var.region
  repository_id = var.name
  format        = "DOCKER"
  description   = "Images of Sensor Stream, with immutable tags."
  labels        = var.labels
  kms_key_name  = var.kms_key

  docker_config {
    immutable_tags = true
  }

  depends_on = [google_project_service.needed, google_kms_crypto_key_iam_member.agents]
}

resource "google_artifact_registry_repository_iam_member" "images" {
  for_each = {
    build  = { role = "roles/artifactregistry.writer", member = local.build }
    worker = { role = "roles/artifactregistry.reader", member = local.worker }
  }

  project    = var.project
  location   = var.region
  repository = google_artifact_registry_repository.images.repository_id
  role       = each.value.role
  member     = each.value.member
}
