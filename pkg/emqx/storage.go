package emqx

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
)

// Storage is the durable storage of a cluster, as one of its nodes tells (emqx_mgmt_api_ds.erl): on which sites the replicas of
// its shards are. A site is the disk of a node.
type Storage struct {
	// Sites are all that the cluster knows of, by ID.
	Sites []Site
	// Databases are those that are open, by name.
	Databases []Database
}

// Site is where replicas may be.
type Site struct {
	// ID is the site's name for good; it does not change with the node's.
	ID string
	// Node is the node that the site is on.
	Node string
	// Up tells whether that node runs.
	Up bool
}

// Database is one that is kept in shards.
type Database struct {
	Name   string
	Shards []Shard
}

// Shard is a part of a database, of which there are several replicas.
type Shard struct {
	ID string
	// Replicas are the sites that hold one.
	Replicas []string
	// Lost are those of them whose nodes are no members any more.
	Lost []string
	// Joining and Leaving are the sites that are about to get a replica, or to lose it. Versions before 6.0 do not tell.
	Joining, Leaving []string
}

// Storage asks a node for the durable storage of its cluster. It is ErrStorageDisabled where there is none.
func (c *Client) Storage(ctx context.Context, node Node, credentials Credentials) (Storage, error) {
	var storage Storage
	var sites, databases []string
	if err := c.askStorage(ctx, node, credentials, "ds_sites", "sites", &sites); err != nil {
		return Storage{}, err
	}
	slices.Sort(sites)
	for _, id := range sites {
		site, err := c.site(ctx, node, credentials, id)
		if errors.Is(err, ErrUnknownSite) {
			continue // It was forgotten in between.
		}
		if err != nil {
			return Storage{}, err
		}
		storage.Sites = append(storage.Sites, site)
	}
	if err := c.askStorage(ctx, node, credentials, "ds_storages", "storages", &databases); err != nil {
		return Storage{}, err
	}
	slices.Sort(databases)
	for _, name := range databases {
		database, err := c.database(ctx, node, credentials, name)
		if err != nil {
			return Storage{}, err
		}
		storage.Databases = append(storage.Databases, database)
	}
	return storage, nil
}

func (c *Client) askStorage(ctx context.Context, node Node, credentials Credentials, operation, path string, out any) error {
	return c.do(ctx, node, credentials, call{operation: operation, system: true, method: http.MethodGet, path: "/api/v5/ds/" + path, timeout: questionTimeout}, out)
}

func (c *Client) site(ctx context.Context, node Node, credentials Credentials, id string) (Site, error) {
	var answer struct {
		Node string `json:"node"`
		Up   bool   `json:"up"`
	}
	err := c.askStorage(ctx, node, credentials, "ds_site", "sites/"+url.PathEscape(id), &answer)
	return Site{ID: id, Node: answer.Node, Up: answer.Up}, err
}

func (c *Client) database(ctx context.Context, node Node, credentials Credentials, name string) (Database, error) {
	var answer struct {
		Shards []struct {
			ID       string `json:"id"`
			Replicas []struct {
				Site   string `json:"site"`
				Status string `json:"status"`
			} `json:"replicas"`
			Transitions []struct {
				Site       string `json:"site"`
				Transition string `json:"transition"`
			} `json:"transitions"`
		} `json:"shards"`
	}
	err := c.askStorage(ctx, node, credentials, "ds_storage", "storages/"+url.PathEscape(name), &answer)
	database := Database{Name: name}
	for _, told := range answer.Shards {
		shard := Shard{ID: told.ID}
		for _, replica := range told.Replicas {
			shard.Replicas = append(shard.Replicas, replica.Site)
			if replica.Status == "lost" {
				shard.Lost = append(shard.Lost, replica.Site)
			}
		}
		for _, transition := range told.Transitions {
			if transition.Transition == "leaving" {
				shard.Leaving = append(shard.Leaving, transition.Site)
			} else {
				shard.Joining = append(shard.Joining, transition.Site)
			}
		}
		database.Shards = append(database.Shards, shard)
	}
	return database, err
}

// SetReplicas orders that all replicas of a database shall be on the given sites. EMQX moves them by and by.
func (c *Client) SetReplicas(ctx context.Context, node Node, credentials Credentials, database string, sites []string) error {
	return c.do(ctx, node, credentials, call{
		system: true, operation: "ds_set_replicas", method: http.MethodPut, timeout: orderTimeout, body: sites,
		path: "/api/v5/ds/storages/" + url.PathEscape(database) + "/replicas",
	}, nil)
}

// ForgetSite orders a node to have the cluster forget a site whose node has left. That it is not known is success, and so is
// that the version has no such call: before 6.0, a site goes with the node that is made to leave.
func (c *Client) ForgetSite(ctx context.Context, node Node, credentials Credentials, site string) error {
	err := c.do(ctx, node, credentials, call{
		system: true, operation: "ds_forget_site", method: http.MethodPut, timeout: orderTimeout,
		path: "/api/v5/ds/sites/" + url.PathEscape(site) + "/forget",
	}, nil)
	if errors.Is(err, ErrUnknownSite) || errors.Is(err, ErrNoSuchCall) {
		return nil
	}
	return err
}
