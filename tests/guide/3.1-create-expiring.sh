EXPIRES_AT=$(date -d "+7 days" +%s 2>/dev/null || date -v+7d +%s)
curl -X POST "$KALTURA_SERVICE_URL/service/shortlink_shortlink/action/add" \
-d "ks=$KALTURA_KS" \
-d "format=1" \
-d "shortLink[objectType]=KalturaShortLink" \
-d "shortLink[systemName]=TEMP-REVIEW-LINK" \
-d "shortLink[fullUrl]=https://www.kaltura.com/index.php/extwidget/preview/partner_id/$KALTURA_PARTNER_ID/uiconf_id/$KALTURA_PLAYER_ID/entry_id/$KALTURA_ENTRY_ID/embed/dynamic" \
-d "shortLink[status]=2" \
-d "shortLink[expiresAt]=$EXPIRES_AT"
