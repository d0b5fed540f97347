package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/onelb/onelb/test/lab/debian"
	"github.com/onelb/onelb/test/lab/kubebin"
)

// tools are the system programs that kube-proxy calls.
type tools struct {
	nft      debian.Program
	iptables *debian.Program // in iptables and IPVS mode
	ipset    *debian.Program // in IPVS mode
}

// findTools finds nft, and iptables and ipset where the mode needs them.
func findTools(ctx context.Context, mode ProxyMode) (tools, error) {
	cache, err := kubebin.CacheDir()
	if err != nil {
		return tools{}, err
	}
	var t tools
	if t.nft, err = debian.Find(ctx, cache, "nft", "nftables"); err != nil {
		return tools{}, err
	}
	if mode == NFTables {
		return t, nil
	}
	if mode == IPVS {
		set, err := debian.Find(ctx, cache, "ipset", "ipset")
		if err != nil {
			return tools{}, err
		}
		t.ipset = &set
	}
	multi, err := debian.Find(ctx, cache, "xtables-nft-multi", "iptables")
	if err != nil {
		return tools{}, err
	}
	bin, err := iptablesLinks(cache, multi.Path)
	if err != nil {
		return tools{}, err
	}
	multi.BinDirs = append([]string{bin}, multi.BinDirs...)
	t.iptables = &multi
	return t, nil
}

// iptablesLinks makes the names that Debian's package makes when it is
// installed, and not when it is unpacked.
func iptablesLinks(cache, multi string) (string, error) {
	dir := filepath.Join(cache, "iptables-links")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, what := range []string{"", "-save", "-restore"} {
			path := filepath.Join(dir, family+what)
			if target, err := os.Readlink(path); err == nil && target == multi {
				continue
			}
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return "", err
			}
			if err := os.Symlink(multi, path); err != nil && !errors.Is(err, fs.ErrExist) {
				return "", fmt.Errorf("link %s: %w", path, err)
			}
		}
	}
	return dir, nil
}

// env is the environment in which all of them are found.
func (t tools) env() []string {
	if t.iptables == nil {
		return t.nft.Env()
	}
	all := []debian.Program{*t.iptables, t.nft}
	if t.ipset != nil {
		all = append(all, *t.ipset)
	}
	var p debian.Program
	for _, x := range all {
		p.BinDirs = append(p.BinDirs, x.BinDirs...)
		p.LibDirs = append(p.LibDirs, x.LibDirs...)
	}
	env := p.Env()
	for _, lib := range t.iptables.LibDirs {
		env = append(env, "XTABLES_LIBDIR="+filepath.Join(lib, "xtables"))
	}
	return env
}
