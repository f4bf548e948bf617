SHELL := /bin/sh
.DEFAULT_GOAL := help
