"""What the server promises of disks, tried by breaking them: killed processes, full and failing disks, damage."""
