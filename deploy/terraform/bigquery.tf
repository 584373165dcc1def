# The launch creates the tables, because their columns depend on the parameters.
resource "google_bigquery_dataset" "sensors" {
  project     = var.project
  dataset_id  = var.dataset
  location    = coalesce(var.dataset_location, var.region)
  description = "Rows and dead letters of Sensor Stream."
  labels      = var.labels

  dynamic "default_encryption_configuration" {
    for_each = var.kms_key[*]
    content {
      kms_key_name = default_encryption_configuration.value
    }
  }

  depends_on = [google_project_service.needed, google_kms_crypto_key_iam_member.agents]
}

resource "google_bigquery_dataset_iam_member" "worker" {
  project    = var.project
  dataset_id = google_bigquery_dataset.sensors.dataset_id
  role       = "roles/bigquery.dataEditor"
  member     = local.worker
}
