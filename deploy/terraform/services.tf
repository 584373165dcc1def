# The services must be on before anything of theirs is made; they stay on when this module goes.
resource "google_project_service" "needed" {
  for_each = toset([
    "artifactregistry", "bigquery", "bigquerystorage", "cloudbuild", "compute", "containeranalysis", "dataflow", "iam",
    "logging", "monitoring", "pubsub", "run", "storage",
  ])
  project            = var.project
  service            = "${each.key}.googleapis.com"
  disable_on_destroy = false
}
