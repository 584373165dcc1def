resource "google_pubsub_topic" "readings" {
  project                    = var.project
  name                       = var.name
  labels                     = var.labels
  message_retention_duration = var.topic_retention
  kms_key_name               = var.kms_key

  depends_on = [google_project_service.needed, google_kms_crypto_key_iam_member.agents]
}

# No dead_letter_policy: it moves away messages that were delivered too often, including those that the job has received
# but not finished. While a job restarts or lacks workers, it would move away good readings. A message that cannot be read
# is no failed delivery: the job acknowledges it and writes it to the dead-letter table with the reason.
resource "google_pubsub_subscription" "job" {
  project                    = var.project
  name                       = var.name
  topic                      = google_pubsub_topic.readings.id
  labels                     = var.labels
  message_retention_duration = var.subscription_retention
  ack_deadline_seconds       = 60

  # The default deletes the subscription after 31 days without a job; messages published after that would be lost.
  expiration_policy {
    ttl = ""
  }
}
