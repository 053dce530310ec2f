curl -X POST "$KALTURA_SERVICE_URL/service/shortlink_shortlink/action/update" \
-d "ks=$KALTURA_KS" \
-d "format=1" \
-d "id=$SHORT_LINK_ID" \
-d "shortLink[objectType]=KalturaShortLink" \
-d "shortLink[status]=1"
