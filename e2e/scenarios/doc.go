// Package scenarios has the end-to-end tests of the operator: upgrades under load on a real control plane, measured as
// the demo measures them, with nodes that freeze, images that do not exist and specifications that must be refused.
package scenarios
