// Package gauge measures a process from outside: its memory, processor time and connections by /proc, its own metrics by
// scraping, and what it asks of kube-apiserver by the audit log.
package gauge
