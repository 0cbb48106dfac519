"""`python -m app`: the dashboard."""

from app.main import main

main()
