"""Game days: incidents on one machine, with real servers, a real Prometheus, and the runbook as it is written."""
