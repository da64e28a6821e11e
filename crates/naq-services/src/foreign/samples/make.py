"""Writes the samples beside it: what the two Python systems store, in the shape of their serializers (standard library only).

python3 make.py
"""

import base64
import enum
import hashlib
import json
import pathlib
import pickle
import sys
import types
from datetime import datetime, timedelta, timezone

HERE = pathlib.Path(__file__).parent
# 2026-11-22T10:00:00.250Z
NOW = datetime(2026, 11, 22, 10, 0, 0, 250_000, tzinfo=timezone.utc)


def write(name, content):
    (HERE / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


# A member of an enum is pickled by the name of its module, so there has to be one of that name.
enums = types.ModuleType("naq.models.enums")
for module in ("naq", "naq.models"):
    sys.modules[module] = types.ModuleType(module)
sys.modules["naq.models.enums"] = enums
Status = enum.Enum("SCHEDULED_JOB_STATUS", {"ACTIVE": "active", "PAUSED": "paused", "COMPLETED": "completed"}, module="naq.models.enums")
enums.SCHEDULED_JOB_STATUS = Status

job = {
    "job_id": "4f1c9a3be25b4b0c8f6f5d1a2b3c4d5e",
    "enqueue_time": NOW.timestamp(),
    "function": "mails:send_mail",
    "args": ["a@b.c", 1.1],
    "kwargs": {},
    "max_retries": 2,
    "retry_delay": 5,
    "queue_name": "mail",
    "depends_on": [],
    "result_ttl": None,
    "timeout": None,
    "retry_strategy": "linear",
    "retry_on": None,
    "ignore_on": None,
}
every_option = dict(
    job,
    job_id="full.1",
    function="mails:Sender.send",
    args=[],
    kwargs={"to": "ü", "n": 12345678901234567890},
    max_retries=0,
    retry_delay=[1, 5, 25.5],
    queue_name=None,
    depends_on=[job["job_id"], "x.y"],
    result_ttl=60,
    timeout=30.5,
    retry_strategy="exponential",
    retry_on=["builtins:OSError", "smtplib:SMTPException"],
    ignore_on=["builtins:ValueError"],
)
write("job.json", job)
write("every_option.json", every_option)
write("both_kinds_of_args.json", dict(job, kwargs={"to": "x"}))
write("job.pickle", pickle.dumps(job, protocol=5))


def wrapped(payload, algorithm):
    return {
        "data": base64.b64encode(payload).decode("ascii"),
        "data_encoding": "base64",
        "checksum": hashlib.new(algorithm, payload).hexdigest(),
        "checksum_algorithm": algorithm,
        "signature": "0" * 64,
    }


payload = json.dumps(job).encode()
write("wrapped_sha256.json", wrapped(payload, "sha256"))
write("wrapped_sha512.json", wrapped(payload, "sha512"))
write("wrapped_md5.json", wrapped(payload, "md5"))
write("wrapped_damaged.json", dict(wrapped(payload, "sha256"), data=base64.b64encode(payload.replace(b"a@b.c", b"b@b.c")).decode()))


def scheduled(name, payload=payload, **fields):
    record = {
        "job_id": job["job_id"],
        "scheduled_timestamp_utc": NOW.timestamp(),
        "queue_name": "mail",
        "cron": None,
        "interval_seconds": None,
        "repeat": None,
        "_orig_job_payload": payload,
        "_serializer": "json",
        "status": Status.ACTIVE,
        "schedule_failure_count": 0,
        "last_enqueued_utc": None,
        "next_run_utc": NOW.timestamp(),
    }
    write(name, pickle.dumps(dict(record, **fields), protocol=5))


scheduled("delayed.pickle")
scheduled("delayed_status_as_text.pickle", status="active")
scheduled("delayed_paused.pickle", status=Status.PAUSED)
scheduled("delayed_completed.pickle", status=Status.COMPLETED)
scheduled("delayed_pickled_job.pickle", payload=pickle.dumps(job, protocol=5), _serializer="pickle")
scheduled("cron.pickle", cron="*/5 * * * *")
scheduled("cron_with_seconds.pickle", cron="0 3 * * * 30")
scheduled("interval.pickle", interval_seconds=60.0, repeat=3)
scheduled("interval_last_run.pickle", interval_seconds=60.0, repeat=1)
scheduled("interval_paused.pickle", interval_seconds=60.0, status=Status.PAUSED)

failed = {
    "job_id": "f1",
    "enqueue_time": NOW.timestamp(),
    "function_str": "send_mail",
    "args_repr": repr(("a@b.c", 1.1, None)),
    "kwargs_repr": repr({}),
    "max_retries": 1,
    "retry_delay": 0,
    "queue_name": "mail",
    "error": "boom",
    "traceback": "Traceback (most recent call last):\n  …",
}
write("failed.json", failed)
write("failed_object.json", dict(failed, args_repr=repr((object,))))

task = {
    "id": "0f9f3a5e-6a0a-4a57-9d3c-0a1b2c3d4e5f",
    "func_path": "mails.send_mail",
    "args": ["a@b.c"],
    "kwargs": {},
    "status": "PENDING",
    "schedule": {},
    "max_retries": 3,
    "timeout": None,
    "attempts": 0,
    "created_at": NOW.isoformat(),
    "updated_at": NOW.isoformat(),
    "last_attempt_at": None,
}
error = {"error_type": "runtime", "message": "boom", "timestamp": NOW.isoformat(), "traceback": "Traceback …", "retry_count": 3}
write("task.json", task)
write("task_retried.json", dict(task, attempts=2, timeout=30, schedule={"eta": NOW.isoformat()}))
write("task_naive_eta.json", dict(task, schedule={"eta": NOW.replace(tzinfo=None).isoformat()}))
write("task_interval.json", dict(task, schedule={"interval": {"type": "timedelta", "total_seconds": timedelta(minutes=1).total_seconds()}}))
write("task_interval_iso.json", dict(task, schedule={"eta": "2026-11-22T10:00:00.25Z", "interval": "P1DT1.5S"}))
write("task_running.json", dict(task, status="RUNNING"))
write("task_failed.json", dict(task, status="FAILED", attempts=4, error=error))
