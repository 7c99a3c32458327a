# A shell for a person on call: `. /etc/invalidator/on-call.sh` in a pod. Settings of the commands in the runbook.
{{- if .Values.secrets.store.name }}
CACHELIB_STORE=$(cat /etc/invalidator/secrets/store/url)
{{- else }}
CACHELIB_STORE={{ dig "store" "url" "" .Values.config | squote }}
{{- end }}
{{- if .Values.secrets.caches.name }}
CACHELIB_CACHE=$(head -n 1 /etc/invalidator/secrets/caches/urls)
{{- else }}
CACHELIB_CACHE={{ .Values.config.caches | first | squote }}
{{- end }}
CACHELIB_ENTITIES={{ .Values.config.entities | default list | join " " | squote }}
CACHELIB_NAMESPACE={{ .Values.config.namespace | default "lc" | squote }}
PYTHONPATH=/app # the modules that CACHELIB_ENTITIES names
export CACHELIB_STORE CACHELIB_CACHE CACHELIB_ENTITIES CACHELIB_NAMESPACE PYTHONPATH
CONFIG=/etc/invalidator/invalidator.toml
page() { # page status, page metrics, page readyz
  python -c 'import sys, urllib.error, urllib.request
try: print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())
except urllib.error.HTTPError as error: print(error.code, error.read().decode())' "http://127.0.0.1:{{ include "invalidator.port" . }}/$1"
}
