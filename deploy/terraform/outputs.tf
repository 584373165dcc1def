output "build" {
  description = "Command that builds images and spec, to be run in the root of this repository. Replace TAG with a tag of your choice."
  value = join(" ", [
    "gcloud beta builds submit --project=${var.project} --region=${var.region}",
    "--gcs-source-staging-dir=gs://${google_storage_bucket.builds.name}/source",
    "--service-account=${google_service_account.build.id}",
    "--substitutions=_REGION=${var.region},_REPOSITORY=${google_artifact_registry_repository.images.repository_id},_BUCKET=${google_storage_bucket.builds.name},_TAG=TAG",
  ])
}

output "job" {
  description = "Address of the job in the console."
  value       = one([for job in google_dataflow_flex_template_job.sensors : "https://console.cloud.google.com/dataflow/jobs/${var.region}/${job.job_id}?project=${var.project}"])
}

output "dashboard" {
  description = "Address of the dashboard in the console."
  value       = one([for board in google_monitoring_dashboard.sensors : "https://console.cloud.google.com/monitoring/dashboards/builder/${element(split("/", board.id), 3)}?project=${var.project}"])
}

output "table" {
  description = "Output table, project:dataset.table."
  value       = local.parameters.output_table
}

output "topic" {
  description = "Topic to which sensors publish."
  value       = google_pubsub_topic.readings.id
}
