locals {
  bucket = coalesce(var.bucket, "${var.project}-${var.name}")
  build  = "serviceAccount:${google_service_account.build.email}"
  worker = "serviceAccount:${google_service_account.worker.email}"
  images = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"

  # What is not given comes from this module: its subscription and its dataset.
  own_input = var.input_subscription == null && var.input_topic == null
  parameters = merge(local.template_parameters, {
    input_subscription = local.own_input ? google_pubsub_subscription.job.id : var.input_subscription
    output_table       = coalesce(var.output_table, "${var.project}:${google_bigquery_dataset.sensors.dataset_id}.readings")
  })
  makes_subscriptions = var.input_topic != null || var.timestamp_attribute != null

  subscription_watched = var.input_subscription == null ? google_pubsub_subscription.job.name : element(split("/", var.input_subscription), 3)
}
