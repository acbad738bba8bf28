"""Run folders to figures, tables and a report. Reads files only; draw.py is the command."""
