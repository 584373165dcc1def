# Specs, sources of builds, and what jobs stage.
resource "google_storage_bucket" "jobs" {
  project                     = var.project
  name                        = local.bucket
  location                    = var.region
  labels                      = var.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true

  depends_on = [google_project_service.needed]
}

resource "google_storage_bucket_iam_member" "jobs" {
  for_each = { build = local.build, worker = local.worker }

  bucket = google_storage_bucket.jobs.name
  role   = "roles/storage.objectUser"
  member = each.value
}

resource "google_artifact_registry_repository" "images" {
  project       = var.project
  location      = var.region
  repository_id = var.name
  format        = "DOCKER"
  description   = "Images of Sensor Stream, each tag written once."
  labels        = var.labels

  docker_config {
    immutable_tags = true
  }

  depends_on = [google_project_service.needed]
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
