package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// image is one of the images of an archive.
type image struct {
	Digest       string
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Created      time.Time `json:"created"`
	Config       struct {
		User       string   `json:"User"`
		Entrypoint []string `json:"Entrypoint"`
	} `json:"config"`
	layers []string
}

// archive is an OCI archive: its blobs by digest.
type archive map[string][]byte

type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
}

func openArchive(name string) (archive, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	a := archive{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if a[strings.Replace(strings.TrimPrefix(path.Clean(h.Name), "blobs/"), "/", ":", 1)], err = io.ReadAll(r); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
}

func (a archive) decode(digest string, into any) error {
	text, ok := a[digest]
	if !ok {
		return fmt.Errorf("the archive has no %s", digest)
	}
	return json.Unmarshal(text, into)
}

// images lists the images of the archive's manifest list.
func (a archive) images() ([]image, error) {
	var index struct {
		Manifests []descriptor `json:"manifests"`
	}
	if err := a.decode("index.json", &index); err != nil {
		return nil, err
	}
	for len(index.Manifests) == 1 && strings.Contains(index.Manifests[0].MediaType, "index") {
		list := index.Manifests[0].Digest
		index.Manifests = nil
		if err := a.decode(list, &index); err != nil {
			return nil, err
		}
	}
	var out []image
	for _, m := range index.Manifests {
		var manifest struct {
			Config descriptor   `json:"config"`
			Layers []descriptor `json:"layers"`
		}
		if err := a.decode(m.Digest, &manifest); err != nil {
			return nil, err
		}
		i := image{Digest: m.Digest}
		if err := a.decode(manifest.Config.Digest, &i); err != nil {
			return nil, err
		}
		for _, l := range manifest.Layers {
			i.layers = append(i.layers, l.Digest)
		}
		out = append(out, i)
	}
	return out, nil
}

// extract writes an image's files below a directory, and lists them.
func (a archive) extract(i image, dir string) ([]string, error) {
	var files []string
	for _, l := range i.layers {
		r, err := layer(a[l])
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", l, err)
		}
		for {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("layer %s: %w", l, err)
			}
			if !filepath.IsLocal(h.Name) {
				return nil, fmt.Errorf("layer %s: file %s is outside of the root", l, h.Name)
			}
			if h.Typeflag != tar.TypeReg {
				continue
			}
			files = append(files, "/"+path.Clean(h.Name))
			if err := extractFile(r, filepath.Join(dir, filepath.FromSlash(h.Name)), h.FileInfo().Mode().Perm()); err != nil {
				return nil, err
			}
		}
	}
	return files, nil
}

func extractFile(r io.Reader, to string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r) //nolint:gosec // our own archive
	return errors.Join(err, f.Close())
}

// layer reads a layer, compressed or not.
func layer(blob []byte) (*tar.Reader, error) {
	if len(blob) == 0 {
		return nil, errors.New("it is not in the archive")
	}
	if !bytes.HasPrefix(blob, []byte{0x1f, 0x8b}) {
		return tar.NewReader(bytes.NewReader(blob)), nil
	}
	z, err := gzip.NewReader(bytes.NewReader(blob))
	if err != nil {
		return nil, err
	}
	return tar.NewReader(z), nil
}
