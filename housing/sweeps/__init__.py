"""Many runs: job list, live view, ranking, leaderboard and search."""
