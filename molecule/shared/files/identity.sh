#!/bin/sh
# What makes a machine and its platform this one and no other, a line each: a name, and the digest of the value, which may be a secret.
set -eu
digest() {
    sha256sum | cut -d ' ' -f 1
}
echo "hostname $(hostname | digest)"
for file in /etc/machine-id /etc/docker/key.json /var/lib/docker/engine-id /var/lib/systemd/random-seed \
    /var/lib/docker/swarm/certificates/swarm-root-ca.crt /var/lib/docker/swarm/certificates/swarm-node.crt \
    /var/lib/docker/swarm/certificates/swarm-node.key /etc/ssh/ssh_host_*_key /var/lib/mlflow-anywhere/*/secrets/*; do
    if [ -s "$file" ]; then
        echo "$file $(digest <"$file")"
    fi
done
for role in worker manager; do
    echo "$role-token $(docker swarm join-token --quiet $role | digest)"
done
