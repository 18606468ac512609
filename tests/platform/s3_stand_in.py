"""A server in this process that speaks as much of S3 as Arrow's client uses, keeps objects in memory, and can fail."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "bucket"


class S3:
    """Objects by key, and what was asked; ``fails`` says which requests are answered with an error."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.fails = lambda method, key: False
        self.parts: dict[str, dict[int, bytes]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        self.port = self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}/team?endpoint_override=127.0.0.1:{self.port}&scheme=http"

    def written(self) -> list[str]:
        """Keys in the order in which their objects became visible, without Arrow's marks of folders."""
        return [key for method, key in self.asked if method == "WRITE" and not key.endswith("/")]

    def files(self) -> set[str]:
        return {key.removeprefix("team/") for key in self.objects if not key.endswith("/")}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(s3: S3) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def handle_any(self) -> None:
            parts = urlsplit(self.path)
            bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
            query = {
                name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()
            }
            body = self._body()
            s3.asked.append((self.command, key))
            if s3.fails(self.command, key):
                self._error(403, "AccessDenied")
            elif bucket != BUCKET:
                self._error(404, "NoSuchBucket")
            else:
                self._answer(key, query, body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815

        def _answer(self, key: str, query: dict[str, str], body: bytes) -> None:
            match self.command:
                case "GET" if "list-type" in query:
                    self._list(query)
                case "HEAD" if not key:
                    self._reply(200, b"")
                case "GET" | "HEAD" if key in s3.objects:
                    self._object(s3.objects[key])
                case "GET" | "HEAD":
                    self._error(404, "NoSuchKey")
                case "POST" if "uploads" in query:
                    upload = f"{len(s3.parts)}"
                    s3.parts[upload] = {}
                    self._xml(
                        f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
                    )
                case "PUT" if "partNumber" in query:
                    s3.parts[query["uploadId"]][int(query["partNumber"])] = body
                    self._reply(200, b"", ETag='"part"')
                case "POST" if "uploadId" in query:
                    parts = s3.parts[query["uploadId"]]
                    self._keep(key, b"".join(parts[number] for number in sorted(parts)))
                    self._xml(
                        "<CompleteMultipartUploadResult><ETag>whole</ETag></CompleteMultipartUploadResult>"
                    )
                case "PUT":
                    self._keep(key, body)
                    self._reply(200, b"", ETag='"whole"')
                case "DELETE":
                    s3.objects.pop(key, None)
                    self._reply(204, b"")
                case _:
                    self._error(501, "NotImplemented")

        def _keep(self, key: str, content: bytes) -> None:
            s3.objects[key] = content
            s3.asked.append(("WRITE", key))

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            else:
                raw = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    raw += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
                return raw
            content = b""
            while raw:
                line, _, raw = raw.partition(b"\r\n")
                size = int(line.split(b";")[0], 16)
                if not size:
                    break
                content, raw = content + raw[:size], raw[size + 2 :]
            return content

        def _list(self, query: dict[str, str]) -> None:
            keys = sorted(key for key in s3.objects if key.startswith(query.get("prefix", "")))
            contents = "".join(
                f"<Contents><Key>{escape(key)}</Key><Size>{len(s3.objects[key])}</Size>"
                f"<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                for key in keys
            )
            self._xml(
                f"<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>{len(keys)}</KeyCount>{contents}</ListBucketResult>"
            )

        def _object(self, content: bytes) -> None:
            begin, end = 0, len(content)
            if asked := self.headers.get("Range"):
                first, _, last = asked.removeprefix("bytes=").partition("-")
                begin, end = int(first), min(int(last) + 1 if last else end, end)
            piece = content[begin:end]
            headers = {"Content-Range": f"bytes {begin}-{end - 1}/{len(content)}"} if asked else {}
            self._reply(206 if asked else 200, piece, ETag='"whole"', **headers)

        def _error(self, status: int, code: str) -> None:
            self._xml(f"<Error><Code>{code}</Code><Message>{code}</Message></Error>", status)

        def _xml(self, text: str, status: int = 200) -> None:
            self._reply(status, f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode())

        def _reply(self, status: int, content: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Last-Modified", time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    return Handler


ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "not-a-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_REGION": "us-east-1",
}
"""Keys for Arrow's client, which then asks no cloud for them."""
