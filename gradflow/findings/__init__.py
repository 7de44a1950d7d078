"""What people ask of recorded runs, from Python and in CI: findings, reports and checks."""
