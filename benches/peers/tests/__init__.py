"""Tests of the script, without any peer."""
