"""Files that outlive the machine: a copy of runs and studies in S3, Google Cloud Storage or a mounted folder."""
