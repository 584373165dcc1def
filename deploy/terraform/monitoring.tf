# Alerts, dashboard and log-based metrics from the files in deploy/monitoring/, which `gcloud monitoring` takes as well.
locals {
  monitoring = "${path.module}/../monitoring"
  values     = { job_name = var.name, subscription = local.monitored_subscription, runbook = var.runbook }
  alerts = {
    for file in fileset("${local.monitoring}/alerts", "*.json") : trimsuffix(file, ".json") =>
    jsondecode(templatefile("${local.monitoring}/alerts/${file}", local.values)) if var.monitoring
  }
  log_metrics = {
    for file in fileset("${local.monitoring}/log_metrics", "*.json") : trimsuffix(file, ".json") =>
    jsondecode(templatefile("${local.monitoring}/log_metrics/${file}", local.values)) if var.monitoring
  }
}

resource "google_monitoring_dashboard" "sensors" {
  for_each = var.monitoring ? fileset(local.monitoring, "dashboard.json") : []

  project        = var.project
  dashboard_json = templatefile("${local.monitoring}/${each.key}", local.values)

  depends_on = [google_project_service.needed]
}

resource "google_logging_metric" "own" {
  for_each = local.log_metrics

  project          = var.project
  name             = each.value.name
  description      = each.value.description
  filter           = each.value.filter
  label_extractors = try(each.value.labelExtractors, null)

  metric_descriptor {
    metric_kind = each.value.metricDescriptor.metricKind
    value_type  = each.value.metricDescriptor.valueType
    unit        = try(each.value.metricDescriptor.unit, null)

    dynamic "labels" {
      for_each = try(each.value.metricDescriptor.labels, [])
      content {
        key        = labels.value.key
        value_type = labels.value.valueType
      }
    }
  }

  depends_on = [google_project_service.needed]
}

resource "google_monitoring_alert_policy" "own" {
  for_each = local.alerts

  project               = var.project
  display_name          = each.value.displayName
  combiner              = each.value.combiner
  severity              = each.value.severity
  notification_channels = var.notification_channels
  user_labels           = var.labels

  documentation {
    content   = each.value.documentation.content
    mime_type = each.value.documentation.mimeType
  }

  dynamic "alert_strategy" {
    for_each = try([each.value.alertStrategy], [])
    content {
      auto_close = alert_strategy.value.autoClose

      notification_rate_limit {
        period = alert_strategy.value.notificationRateLimit.period
      }
    }
  }

  dynamic "conditions" {
    for_each = each.value.conditions
    content {
      display_name = conditions.value.displayName

      dynamic "condition_threshold" {
        for_each = try([conditions.value.conditionThreshold], [])
        content {
          filter          = condition_threshold.value.filter
          comparison      = condition_threshold.value.comparison
          threshold_value = condition_threshold.value.thresholdValue
          duration        = condition_threshold.value.duration

          dynamic "aggregations" {
            for_each = condition_threshold.value.aggregations
            content {
              alignment_period     = aggregations.value.alignmentPeriod
              per_series_aligner   = aggregations.value.perSeriesAligner
              cross_series_reducer = try(aggregations.value.crossSeriesReducer, null)
              group_by_fields      = try(aggregations.value.groupByFields, null)
            }
          }
        }
      }

      dynamic "condition_absent" {
        for_each = try([conditions.value.conditionAbsent], [])
        content {
          filter   = condition_absent.value.filter
          duration = condition_absent.value.duration

          dynamic "aggregations" {
            for_each = condition_absent.value.aggregations
            content {
              alignment_period     = aggregations.value.alignmentPeriod
              per_series_aligner   = aggregations.value.perSeriesAligner
              cross_series_reducer = try(aggregations.value.crossSeriesReducer, null)
              group_by_fields      = try(aggregations.value.groupByFields, null)
            }
          }
        }
      }

      dynamic "condition_prometheus_query_language" {
        for_each = try([conditions.value.conditionPrometheusQueryLanguage], [])
        content {
          query                     = condition_prometheus_query_language.value.query
          duration                  = condition_prometheus_query_language.value.duration
          evaluation_interval       = condition_prometheus_query_language.value.evaluationInterval
          disable_metric_validation = try(condition_prometheus_query_language.value.disableMetricValidation, null)
        }
      }

      dynamic "condition_matched_log" {
        for_each = try([conditions.value.conditionMatchedLog], [])
        content {
          filter           = condition_matched_log.value.filter
          label_extractors = try(condition_matched_log.value.labelExtractors, null)
        }
      }
    }
  }

  depends_on = [google_logging_metric.own, google_project_service.needed]
}
