locals {
  bucket = coalesce(var.bucket, "${var.project}-${var.name}")
  build  = "serviceAccount:${google_service_account.build.email}"
  worker = "serviceAccount:${google_service_account.worker.email}"
  images = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"

  # Without an input or an output table, the job uses the subscription and the dataset of this module.
  own_input = var.input_subscription == null && var.input_topic == null
  parameters = merge(local.template_parameters, {
    input_subscription = local.own_input ? google_pubsub_subscription.job.id : var.input_subscription
    output_table       = coalesce(var.output_table, "${var.project}:${google_bigquery_dataset.sensors.dataset_id}.readings")
  })
  creates_subscriptions = var.input_topic != null || var.timestamp_attribute != null

  monitored_subscription = var.input_subscription == null ? google_pubsub_subscription.job.name : element(split("/", var.input_subscription), 3)
}
