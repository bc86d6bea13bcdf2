// Package emqx is a client of EMQX's management API: requests, answers and typed errors.
//
// It follows emqx_mgmt_api_nodes, emqx_mgmt_api_cluster and emqx_node_rebalance_api of EMQX 5.8 to 6.x, and is held
// against recordings of a real broker. Each node is asked about itself on its own address: EMQX answers questions about
// other nodes by calls among them, and one frozen node then costs half a minute on every node.
package emqx
