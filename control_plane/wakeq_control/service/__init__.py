"""Services of our own: an async function, or a workflow of llama-index, that works on a control plane's tasks."""

from wakeq_control.service.context import TaskContext
from wakeq_control.service.runnable import NotRetryable

__all__ = ["NotRetryable", "TaskContext"]
