# Workers without public addresses in their own network, mail for alerts, and a row for each device.
variable "project" {
  type = string
}

variable "region" {
  type    = string
  default = "europe-west1"
}

variable "template_version" {
  type    = string
  default = null
}

variable "email" {
  type        = string
  description = "Address to which alerts are sent."
}

provider "google" {
  project = var.project
}

provider "google-beta" {
  project = var.project
}

resource "google_compute_network" "sensors" {
  name                    = "sensors"
  auto_create_subnetworks = false
}

# Workers need only Private Google Access: the image has every package, so they download nothing from the internet.
resource "google_compute_subnetwork" "workers" {
  name                     = "sensors-workers"
  region                   = var.region
  network                  = google_compute_network.sensors.id
  ip_cidr_range            = "10.10.0.0/24"
  private_ip_google_access = true
}

# Workers communicate on these ports; Dataflow sets the tag.
resource "google_compute_firewall" "workers" {
  name        = "sensors-workers"
  network     = google_compute_network.sensors.id
  source_tags = ["dataflow"]
  target_tags = ["dataflow"]

  allow {
    protocol = "tcp"
    ports    = ["12345-12346"]
  }
}

resource "google_monitoring_notification_channel" "email" {
  display_name = "Sensor Stream"
  type         = "email"
  labels       = { email_address = var.email }
}

module "sensor_stream" {
  source = "../.."

  project               = var.project
  region                = var.region
  dataset_location      = "EU"
  template_version      = var.template_version
  private_workers       = true
  subnetwork            = "regions/${var.region}/subnetworks/${google_compute_subnetwork.workers.name}"
  machine_type          = "n2d-standard-2"
  max_workers           = 5
  labels                = { team = "sensors" }
  notification_channels = [google_monitoring_notification_channel.email.id]

  timestamp_attribute = "timestamp"
  id_attribute        = "reading_id"
  sensors             = "Airtight,AtmP,H2OC,Temp"
  group_by_device     = true
  interval            = "1m"
}

output "job" {
  value = module.sensor_stream.job
}

output "dashboard" {
  value = module.sensor_stream.dashboard
}

output "table" {
  value = module.sensor_stream.table
}
