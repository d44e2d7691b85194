"""Make the bucket, or list what is in it, past the tracking server."""

# ruff: noqa: T201 (the test reads its output)
import json
import sys

import boto3  # type: ignore[import-not-found]  # only the runtime image has it

action, endpoint, bucket, prefix, key_id, secret = sys.argv[1:]
client = boto3.client(
    "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=key_id, aws_secret_access_key=secret
)
if action == "create":
    client.create_bucket(Bucket=bucket)
found = client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
print(json.dumps({item["Key"]: item["Size"] for item in found}))
