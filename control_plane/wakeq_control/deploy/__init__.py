"""Deployments: a queue, a control plane and services from one file, kept running."""
