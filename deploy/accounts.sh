#!/bin/sh
# Creates the two service accounts and grants their roles on each resource. Can be run again.
#
# sensor-stream-build is for builds, sensor-stream-worker for the launcher and the workers. Needs the variables of
# .env.example and the resources that docs/deploy.md creates before. A test compares it with deploy/terraform/.
set -eu

build=serviceAccount:sensor-stream-build@$PROJECT_ID.iam.gserviceaccount.com
worker=serviceAccount:sensor-stream-worker@$PROJECT_ID.iam.gserviceaccount.com
dataset=${BQ_TABLE#*:}
dataset=${dataset%.*}

for member in "$build" "$worker"; do
  email=${member#*:}
  gcloud iam service-accounts describe "$email" > /dev/null 2>&1 ||
    gcloud iam service-accounts create "${email%%@*}" --project="$PROJECT_ID"
done

on_project() { gcloud projects add-iam-policy-binding "$PROJECT_ID" --condition=None --member="$1" --role="roles/$2"; }
on_bucket() { gcloud storage buckets add-iam-policy-binding "gs://$1" --member="$2" --role="roles/$3"; }
on_images() {
  gcloud artifacts repositories add-iam-policy-binding sensor-stream --location="$REGION" --project="$PROJECT_ID" \
    --member="$1" --role="roles/$2"
}
on_subscription() {
  gcloud pubsub subscriptions add-iam-policy-binding "$SUBSCRIPTION_NAME" --project="$PROJECT_ID" \
    --member="$1" --role="roles/$2"
}

on_project "$build" logging.logWriter
on_project "$worker" dataflow.worker
on_project "$worker" pubsub.editor
on_subscription "$worker" pubsub.subscriber
on_subscription "$worker" pubsub.viewer
on_bucket "$BUCKET_NAME" "$build" storage.objectUser
on_bucket "$BUCKET_NAME" "$worker" storage.objectViewer
on_bucket "$BUCKET_NAME-jobs" "$worker" storage.objectUser
on_images "$build" artifactregistry.writer
on_images "$worker" artifactregistry.reader
bq query --project_id="$PROJECT_ID" --location="$REGION" --use_legacy_sql=false \
  "GRANT \`roles/bigquery.dataEditor\` ON SCHEMA \`$dataset\` TO '$worker'"
