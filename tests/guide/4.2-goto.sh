curl -s -o /dev/null -w "%{http_code} %{redirect_url}" \
"$KALTURA_SERVICE_URL/service/shortlink_shortlink/action/goto/id/$SHORT_LINK_ID"
