//go:build tools

// Package kubo pins the version of Kubo that the tests run against.
package kubo

import _ "github.com/ipfs/kubo/cmd/ipfs"
