"""What an operator watches with: alert rules, dashboard, runbook."""
