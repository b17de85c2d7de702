"""Importing this module puts wakeq where llama_deploy has its own queue: `wakeq.integrations.llama_deploy.install`."""

from wakeq.integrations.llama_deploy._install import install

install()
