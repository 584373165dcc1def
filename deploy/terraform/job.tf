# A change of `parameters` or of the template updates the running job in place. A job that cannot be updated is drained
# and replaced. `parameters` does not contain `streaming`, which the provider refuses; the template sets it.
resource "google_dataflow_flex_template_job" "sensors" {
  provider = google-beta
  count    = var.template_version == null ? 0 : 1

  project                 = var.project
  region                  = var.region
  name                    = var.name
  container_spec_gcs_path = "gs://${google_storage_bucket.builds.name}/templates/${var.template_version}.json"
  parameters              = { for name, value in local.parameters : name => value if value != null }

  on_delete               = "drain"
  labels                  = var.labels
  service_account_email   = google_service_account.worker.email
  staging_location        = "gs://${google_storage_bucket.jobs.name}/staging"
  temp_location           = "gs://${google_storage_bucket.jobs.name}/temp"
  machine_type            = var.machine_type
  launcher_machine_type   = var.launcher_machine_type
  max_workers             = var.max_workers
  enable_streaming_engine = var.streaming_engine
  ip_configuration        = var.private_workers ? "WORKER_IP_PRIVATE" : null
  network                 = var.network
  subnetwork              = var.subnetwork
  kms_key_name            = var.kms_key

  # The job would fail without these, and must be drained before they are deleted.
  depends_on = [
    google_artifact_registry_repository_iam_member.images,
    google_bigquery_dataset_iam_member.worker,
    google_kms_crypto_key_iam_member.agents,
    google_project_iam_member.worker,
    google_project_iam_member.worker_subscriptions,
    google_pubsub_subscription_iam_member.worker,
    google_pubsub_topic_iam_member.worker,
    google_storage_bucket_iam_member.builds,
    google_storage_bucket_iam_member.jobs,
  ]
}
