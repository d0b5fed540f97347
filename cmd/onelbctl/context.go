package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	manifests "github.com/onelb/onelb/manifests/router"
)

func contextCommand() *cobra.Command {
	var o contextOptions
	c := &cobra.Command{
		Use: "context", Short: "Print what goes into the OpenNebula template of a virtual router", Args: cobra.NoArgs,
		Long: `Prints attributes for the CONTEXT of a virtual router's VM template: a start script that
installs onelb-router with the certificates of the directory that bootstrap wrote, at each
boot, with systemd or OpenRC. The binary comes as an image of type CONTEXT:

  oneimage create -d 2 --type CONTEXT --name onelb-router --path bin/onelb-router

The script contains router.key: whoever may see the template, or the VM, can read it.`,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.OutOrStdout()) },
	}
	c.Flags().StringVar(&o.dir, "out", "", "directory with the files, as given to bootstrap (required)")
	c.Flags().StringVar(&o.listen, "listen", ":9443", "address for the clusters' connections, best of the management network")
	c.Flags().StringVar(&o.image, "image", "onelb-router", "image with the binary")
	c.Flags().StringVar(&o.args, "args", "", "further flags of onelb-router")
	if err := c.MarkFlagRequired("out"); err != nil {
		panic(err) // the flag was declared above
	}
	return c
}

type contextOptions struct{ dir, listen, image, args string }

func (o contextOptions) run(w io.Writer) error {
	if _, _, err := net.SplitHostPort(o.listen); err != nil {
		return fmt.Errorf("--listen %s: %w", o.listen, err)
	}
	if strings.ContainsAny(o.image, `"'\`) || strings.ContainsAny(o.args, "\n\"'`$\\") {
		return fmt.Errorf("--image %q or --args %q contains a quote, or what a shell would expand", o.image, o.args)
	}
	script, err := o.script()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, `# For the CONTEXT of the virtual router's template (onetemplate update).
FILES_DS = "$FILE[IMAGE=\"%s\"]:'onelb-router'",
START_SCRIPT_BASE64 = "%s"
`, o.image, base64.StdEncoding.EncodeToString([]byte(script)))
	return err
}

// endOfFile is a line that is in none of the files.
const endOfFile = "ONELB_END_OF_FILE"

// script writes all files to a directory of its own and runs install.sh there.
func (o contextOptions) script() (string, error) {
	settings, err := o.settings()
	if err != nil {
		return "", err
	}
	files := []file{{name: "onelb-router.env", data: settings}}
	for _, name := range []string{"install.sh", "onelb-router.service", "onelb-router.initd"} {
		data, err := manifests.Files.ReadFile(name)
		if err != nil {
			return "", err
		}
		files = append(files, file{name: name, data: data})
	}
	for _, name := range []string{"ca.crt", "router.crt", "router.key"} {
		data, err := os.ReadFile(filepath.Join(o.dir, name))
		if err != nil {
			return "", err
		}
		files = append(files, file{name: name, data: data})
	}
	var b strings.Builder
	b.WriteString(`#!/bin/sh
# Installs onelb-router; made by onelbctl router context.
set -eu
umask 077
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
for from in "${MOUNT_DIR:-/mnt}" /mnt /mnt/context /usr/local/sbin; do
    if [ -f "$from/onelb-router" ]; then
        cp "$from/onelb-router" onelb-router
        break
    fi
done
`)
	for _, f := range files {
		fmt.Fprintf(&b, "cat >%s <<'%s'\n%s\n%s\n", f.name, endOfFile, strings.TrimRight(string(f.data), "\n"), endOfFile)
	}
	b.WriteString("sh ./install.sh\n")
	return b.String(), nil
}

// settings are the ones of manifests/router, with this router's name.
func (o contextOptions) settings() ([]byte, error) {
	cert, err := rotation{dir: o.dir}.certificate("router")
	if err != nil {
		return nil, err
	}
	if cert == nil {
		return nil, fmt.Errorf("no router.crt in %s: onelbctl router bootstrap makes it", o.dir)
	}
	name, err := routerOf(cert)
	if err != nil {
		return nil, err
	}
	data, err := manifests.Files.ReadFile("onelb-router.env")
	if err != nil {
		return nil, err
	}
	values := map[string]string{"ONELB_ROUTER_NAME": name, "ONELB_ROUTER_LISTEN": o.listen, "ONELB_ROUTER_ARGS": o.args}
	lines := strings.Split(string(data), "\n")
	for i, line := range lines {
		key, _, is := strings.Cut(line, "=")
		value, known := values[key]
		if !is || !known {
			continue
		}
		if strings.Contains(value, " ") {
			value = `"` + value + `"`
		}
		lines[i] = key + "=" + value
		delete(values, key)
	}
	if len(values) > 0 {
		return nil, fmt.Errorf("settings without a line of their own: %v", values)
	}
	return []byte(strings.Join(lines, "\n")), nil
}
