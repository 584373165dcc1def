# APIs must be enabled before their resources are created. They stay enabled when the module is destroyed.
resource "google_project_service" "needed" {
  for_each = toset([
    "artifactregistry", "bigquery", "bigquerystorage", "cloudbuild", "compute", "containeranalysis", "dataflow", "iam",
    "logging", "monitoring", "pubsub", "run", "storage",
  ])
  project            = var.project
  service            = "${each.key}.googleapis.com"
  disable_on_destroy = false
}
