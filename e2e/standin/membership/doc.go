// Package membership keeps the membership of an EMQX stand-in: which nodes belong to the cluster, which of them run,
// and how a node finds the others and joins them.
//
// A member is remembered until it leaves or is made to leave, over restarts too. It is running while the connection
// to it stands and it has announced that its applications run; a member that has run and does not any more is
// stopped. Membership is a table of versioned entries that nodes exchange whenever they connect, the newer entry
// winning. So a node that was away learns who left in the meantime.
package membership
