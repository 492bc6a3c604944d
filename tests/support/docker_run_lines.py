"""Lines of `docker run` as READMEs of tools and of MCP servers have them, shortened.

`{home}` is a folder of the host that exists, with `data`, `photos`, `src` and `.aws` in it. The images' names have no
registry; their own do not matter here.
"""

from __future__ import annotations

#: Lines of tools and libraries.
TOOLS = (
    "--rm -v $(pwd):/work mwader/ffmpeg -i in.mp4 out.webm",
    '--rm -v "$PWD":/data pandoc/core in.md -o out.html',
    "--rm -it -v ${PWD}:/w alpine sh",
    "-it --rm -v .:/src -w /src node:22 npm test",
    "--rm -u '$(id -u):$(id -g)' -v $(pwd):/documents asciidoctor/docker-asciidoctor asciidoctor a.adoc",
    "--rm -i hadolint/hadolint",
    "--rm -v $PWD:/mnt koalaman/shellcheck:stable a.sh",
    "--rm -v $(pwd):/app -w /app golangci/golangci-lint:v2 golangci-lint run",
    "--rm -v ~/src:/src:ro returntocorp/semgrep semgrep scan /src",
    "--rm -v {home}/data:/data -e LOG_LEVEL=debug jgraph/drawio-export",
    "-d --name db -e POSTGRES_PASSWORD=secret -p 5432:5432 -v pgdata:/var/lib/postgresql/data postgres:17",
    "-d --restart unless-stopped --name redis -p 6379:6379 redis:8",
    "-it --rm --network host nicolaka/netshoot",
    "--rm --net=bridge curlimages/curl -sS example.org",
    "--rm --gpus all nvidia/cuda:12 nvidia-smi",
    "--rm --gpus '\"device=0,1\"' pytorch/pytorch python train.py",
    "--rm --shm-size=1g --ipc=host pytorch/pytorch python train.py",
    "--rm --shm-size=2g selenium/standalone-chrome",
    "--rm -it -v /var/run/docker.sock:/var/run/docker.sock docker:cli ps",
    "-d -v /var/run/docker.sock:/var/run/docker.sock -v portainer:/data -p 9443:9443 portainer/portainer-ce",
    "--privileged --rm tonistiigi/binfmt --install all",
    "--rm --cap-add SYS_PTRACE --security-opt seccomp=unconfined -v $(pwd):/src gcc:14 gdb /src/a.out",
    "--rm --user root -v {home}/data:/data alpine chown -R 1000 /data",
    "--rm -v cache:/root/.cache -v $(pwd):/app python:3.12 pip download -r /app/requirements.txt",
    "--rm --env-file .env -v $(pwd):/app node:22 node /app/index.js",
    "--rm -e AWS_PROFILE -v ~/.aws:/home/app/.aws:ro amazon/aws-cli s3 ls",
    "--rm -v {home}/photos:/photos:z --memory 8g --cpus 8 photoprism/photoprism photoprism index",
    "--rm --mount type=bind,source={home}/data,target=/data,readonly busybox ls /data",
    "--rm --mount type=volume,src=state,dst=/state busybox ls /state",
    "--rm --mount type=tmpfs,dst=/scratch busybox df /scratch",
    "--rm --tmpfs /scratch:rw,noexec,size=64m --read-only busybox df /scratch",
    "--rm --hostname build --add-host registry:10.0.0.5 --dns 10.0.0.2 busybox hostname",
)
#: Lines that start a stdio MCP server.
MCP_SERVERS = (
    "-i --rm mcp/fetch",
    "-i --rm mcp/time",
    "-i --rm mcp/sequentialthinking",
    "-i --rm mcp/everything",
    "-i --rm mcp/memory",
    "-i -v claude-memory:/app/dist --rm mcp/memory",
    "-i --rm --mount type=bind,src={home}/src,dst=/projects/src mcp/filesystem /projects",
    "--rm -i --mount type=bind,src={home}/src,dst=/workspace mcp/git",
    "-i --rm -e GITHUB_PERSONAL_ACCESS_TOKEN mcp/github",
    "-i --rm -e GITHUB_PERSONAL_ACCESS_TOKEN github/github-mcp-server",
    "-i --rm -e GITLAB_PERSONAL_ACCESS_TOKEN -e GITLAB_API_URL mcp/gitlab",
    "-i --rm -e SLACK_BOT_TOKEN -e SLACK_TEAM_ID mcp/slack",
    "-i --rm -e BRAVE_API_KEY mcp/brave-search",
    "-i --rm -e GOOGLE_MAPS_API_KEY mcp/google-maps",
    "-i --rm mcp/postgres postgresql://db:5432/app",
    "--rm -i -v mcp-test:/mcp mcp/sqlite --db-path /mcp/test.db",
    "-i --rm -v mcp-gdrive:/gdrive-server -e GDRIVE_CREDENTIALS_PATH=/gdrive-server/c.json mcp/gdrive",
    "-i --rm --init mcp/playwright",
    "-i --rm --init -e DOCKER_CONTAINER=true mcp/puppeteer",
    "-i --rm -e NOTION_TOKEN mcp/notion",
    "-i --rm -e GRAFANA_URL -e GRAFANA_API_KEY mcp/grafana -t stdio",
    "--rm -i -e MDB_MCP_CONNECTION_STRING mongodb/mongodb-mcp-server",
    "-i --rm -e TFE_TOKEN hashicorp/terraform-mcp-server",
    "-i --rm -v {home}/.aws:/home/app/.aws mcp/aws-api-mcp-server",
    "-i --rm -e NODE_ENV=production node:22 npx -y @modelcontextprotocol/server-everything",
    "-i --rm python:3.12 uvx mcp-server-fetch",
    "-i --rm -p 8000:8000 crystaldba/postgres-mcp --access-mode=restricted",
)
LINES = (*TOOLS, *MCP_SERVERS)
