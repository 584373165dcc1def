"""The template, its deployment by Terraform, monitoring, acceptance in a real project, and its price."""
