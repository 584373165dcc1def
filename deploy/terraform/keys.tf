# The service agents encrypt and decrypt with kms_key; the accounts of this module do not.
resource "google_project_service_identity" "agents" {
  provider = google-beta
  for_each = toset(var.kms_key == null ? [] : ["artifactregistry", "dataflow", "pubsub"])

  project    = var.project
  service    = "${each.key}.googleapis.com"
  depends_on = [google_project_service.needed]
}

# https://cloud.google.com/iam/docs/service-agents
resource "google_kms_crypto_key_iam_member" "agents" {
  for_each = var.kms_key == null ? {} : {
    artifactregistry = "service-${local.project_number}@gcp-sa-artifactregistry"
    bigquery         = "bq-${local.project_number}@bigquery-encryption"
    compute          = "service-${local.project_number}@compute-system"
    dataflow         = "service-${local.project_number}@dataflow-service-producer-prod"
    pubsub           = "service-${local.project_number}@gcp-sa-pubsub"
    storage          = "service-${local.project_number}@gs-project-accounts"
  }

  crypto_key_id = var.kms_key
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = "serviceAccount:${each.value}.iam.gserviceaccount.com"
  depends_on    = [google_project_service_identity.agents]
}

locals {
  project_number = var.kms_key == null ? null : regex("service-([0-9]+)@", google_project_service_identity.agents["pubsub"].email)[0]
}
