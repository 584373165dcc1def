# All defaults, with the attributes that the publisher sets.
variable "project" {
  type = string
}

variable "template_version" {
  type    = string
  default = null
}

provider "google" {
  project = var.project
}

provider "google-beta" {
  project = var.project
}

module "sensor_stream" {
  source = "../.."

  project             = var.project
  template_version    = var.template_version
  timestamp_attribute = "timestamp"
  id_attribute        = "reading_id"
  publisher_arguments = ["--rate=50", "--duration=1h"]
}

output "build" {
  value = module.sensor_stream.build
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
