// Package opennebula reaches OpenNebula as the cloud-controller-manager does: with
// its cloud-config file. Nothing is called before the client is used.
package opennebula

import (
	"github.com/spf13/cobra"

	"github.com/onelb/onelb/provider/config"
	"github.com/onelb/onelb/provider/one"
)

// AddFlag adds --cloud-config, which has to be given.
func AddFlag(c *cobra.Command, file *string) {
	c.Flags().StringVar(file, "cloud-config", "", "cloud-config file of the cloud-controller-manager; the paths in it have to be valid here (required)")
	if err := c.MarkFlagRequired("cloud-config"); err != nil {
		panic(err) // the flag was declared above
	}
}

// Open reads the file and makes a client of it.
func Open(file string) (*config.Config, *one.Client, error) {
	cfg, err := config.Load(file)
	if err != nil {
		return nil, nil, err
	}
	client, err := one.New(one.Options{
		Endpoint: cfg.Endpoint, Credentials: one.CredentialsIn(cfg.Credentials.File, cfg.Credentials.Env), CAFile: cfg.CAFile, RequestTimeout: cfg.RequestTimeout,
	})
	if err != nil {
		return nil, nil, err
	}
	return cfg, client, nil
}
