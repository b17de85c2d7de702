"""What waits: for the disk, for services, for tasks' events and results, for deadlines."""
