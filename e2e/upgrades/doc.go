// Package upgrades has the end-to-end tests of upgrades under load, measured as the demo measures them: at a high rate, with slow
// clients, with nodes that freeze, with an operator that dies and with data that moves along.
package upgrades
