# Builds images and spec for each git tag that begins with v, under that tag.
resource "google_cloudbuild_trigger" "tag" {
  count = var.source_repository == null ? 0 : 1

  project         = var.project
  location        = var.region
  name            = "${var.name}-tag"
  filename        = "cloudbuild.yaml"
  service_account = google_service_account.build.id

  repository_event_config {
    repository = var.source_repository

    push {
      tag = "^v"
    }
  }

  substitutions = {
    _REGION     = var.region
    _REPOSITORY = google_artifact_registry_repository.images.repository_id
    _BUCKET     = google_storage_bucket.builds.name
    _TAG        = "$TAG_NAME"
  }
}
