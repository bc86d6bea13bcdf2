// Package scenarios has the end-to-end tests of what people do with the operator on a real control plane: install it, take a
// cluster over, write specifications that must be refused, and edit what they should not. Upgrades under load are in upgrades.
package scenarios
