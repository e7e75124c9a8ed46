"""A job's request and receipt, as every role that touches a job sees them: client, gateway, coordinator, worker."""
